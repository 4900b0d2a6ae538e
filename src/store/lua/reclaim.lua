-- Claims what is due: retries, and deliveries whose worker gave no sign of life for a lease.
-- The probe (XPENDING … IDLE) finds what is due and who had it; XAUTOCLAIM takes just that, one
-- entry per call: it reads the clock again, and a wider call could claim what became due in
-- between, of which nobody asked who had it.
-- KEYS: stream, attempts, stats
-- ARGV: group, consumer, lease (ms), limit, 'all' or 'parked' (only what no living worker runs),
--       the last moment (ms, 1970, this server's clock) to claim all, or ''
-- Answers {claimed, ids of deleted entries, how many were parked again, now, late ('1'/'0')}; claimed: {id, fields, count, starts, log}, where
-- starts is -1 unless the delivery lost its worker: then it is marked before it runs again
-- (mark_started.lua), and starts says how many such marks it has so far.
must_be(KEYS[1], 'stream')
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now, due = now_ms(), nil
-- A server that was frozen, or swapped, runs what was sent before: by now the living could not
-- renew, and all their leases look expired.
if ARGV[6] ~= '' and now > tonumber(ARGV[6]) then return {{}, {}, 0, now, '1'} end
-- The probe passes everything that is not due: it looks for more than can be claimed, because what
-- is only to be parked again needs no slot.
local limit = tonumber(ARGV[4])
local probe = math.max(limit, 128)
if ARGV[5] == 'all' then
  due = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', probe)
else
  due = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', probe, 'retry')
  if #due == 0 then
    due = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', probe, 'released')
  end
end
if #due == 0 then return {{}, {}, 0, now, '0'} end
must_be_claimable(KEYS[1], KEYS[2], KEYS[3])
must_be_able(KEYS[1], 'XAUTOCLAIM')
must_be_able(KEYS[2], 'HGET', 'HMGET', 'HSET')
local claimed, lost, parked_again = {}, {}, 0
local function gone(id)
  count_lost(KEYS[2], KEYS[3], id)
  lost[#lost + 1] = id
end
local owners, waits = {}, {}
for _, pending in ipairs(due) do
  local id, owner, count = pending[1], pending[2], pending[4]
  owners[id] = owner
  -- A delay longer than the lease surfaces early. (What was released is due whatever the clock
  -- says: it may have been set back since.)
  local due_at = owner == 'retry' and redis.call('HGET', KEYS[2], id .. ':due')
  local wait = (tonumber(due_at) or 0) - now
  if wait > 0 then
    waits[id] = true
    local moved = redis.call('XCLAIM', KEYS[1], group, owner, 0, id,
      'IDLE', string.format('%.0f', math.max(lease - wait, 0)), 'RETRYCOUNT', count, 'JUSTID')
    if #moved == 0 then gone(id) else parked_again = parked_again + 1 end
  end
end
for _, pending in ipairs(due) do
  if #claimed == limit then break end
  if not waits[pending[1]] then
    local reply = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, lease, pending[1], 'COUNT', 1)
    local entry = reply[2][1]
    for _, id in ipairs(reply[3]) do gone(id) end
    if entry then -- not always the one asked for: the server's clock may step back in between
      local id = entry[1]
      local count = redis.call('XPENDING', KEYS[1], group, id, id, 1)[1][4]
      local log, starts, due_at = unpack(redis.call('HMGET', KEYS[2], id, id .. ':starts', id .. ':due'))
      local parked = owners[id] == 'retry' or owners[id] == 'released'
      -- Parked deliveries have a recorded outcome; any other lost its worker.
      if due_at then redis.call('HDEL', KEYS[2], id .. ':due') end
      redis.call('HSET', KEYS[2], id .. ':claimed', count) -- see holds_all
      claimed[#claimed + 1] = {id, entry[2], count, tonumber(starts) or (parked and -1 or 0), log or ''}
    end
  end
end
return {claimed, lost, parked_again, now, '0'}
