-- Claims what is due: retries, and deliveries whose worker gave no sign of life for a lease.
-- The probe (XPENDING … IDLE) finds what is due and who had it; XAUTOCLAIM takes just that, one
-- entry per call: it reads the clock again, and a wider call could claim what became due in
-- between, of which nobody asked who had it.
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
local now, claimed, lost = now_ms(), {}, {}
for _, pending in ipairs(due) do
  local id, owner, count = pending[1], pending[2], pending[4] + 1
  local reply = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, lease, id, 'COUNT', 1)
  local entry = reply[2][1]
  if not entry then
    count_lost(KEYS[2], KEYS[3], id)
    lost[#lost + 1] = id
  else
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
end
return {claimed, lost}
