-- Claims what is due: retries, and deliveries whose worker gave no sign of life for a lease.
-- The probe (XPENDING … IDLE) finds the first due entry and who had it; XAUTOCLAIM starts
-- there. Both in one script, so that "who had it" is true of exactly what is claimed.
-- KEYS: stream, attempts, stats
-- ARGV: group, consumer, lease (ms), limit
-- Answers {claimed, ids of deleted entries}; claimed: {id, fields, count, starts, log}, where
-- starts is -1 unless the delivery lost its worker: then it is marked before it runs again
-- (mark_started.lua), and starts says how many such marks it has so far.
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local due = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', ARGV[4])
if #due == 0 then return {{}, {}} end
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'hash')
local before = {}
for _, pending in ipairs(due) do before[pending[1]] = pending end
local reply = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, lease, due[1][1], 'COUNT', ARGV[4])
local now, claimed = now_ms(), {}
for _, entry in ipairs(reply[2]) do
  local id = entry[1]
  local owner, count = before[id][2], before[id][4] + 1
  local log, starts, due_at = unpack(redis.call('HMGET', KEYS[2], id, id .. ':starts', id .. ':due'))
  local wait = (tonumber(due_at) or 0) - now
  local parked = owner == 'retry' or owner == 'released'
  if parked and wait > 0 then
    -- A delay longer than the lease surfaces early: park it again.
    redis.call('XCLAIM', KEYS[1], group, owner, 0, id,
      'IDLE', string.format('%.0f', math.max(lease - wait, 0)), 'RETRYCOUNT', count, 'JUSTID')
  else
    -- Parked deliveries have a recorded outcome; any other lost its worker.
    if due_at then redis.call('HDEL', KEYS[2], id .. ':due') end
    claimed[#claimed + 1] = {id, entry[2], count, tonumber(starts) or (parked and -1 or 0), log or ''}
  end
end
for _, id in ipairs(reply[3]) do
  forget(KEYS[2], id)
  redis.call('HINCRBY', KEYS[3], 'lost', 1)
end
return {claimed, reply[3]}
