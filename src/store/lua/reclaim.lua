-- Claims what is due: retries, and deliveries whose worker gave no sign of life for a lease.
-- The probe (XPENDING … IDLE) finds what is due and who had it; XCLAIM takes just that.
-- XAUTOCLAIM would read the clock again, and claim what became due in between: entries of
-- which nobody asked who had them.
-- KEYS: stream, attempts, stats
-- ARGV: group, consumer, lease (ms), limit
-- Answers {claimed, ids of deleted entries}; claimed: {id, fields, count, starts, log}.
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local due = redis.call('XPENDING', KEYS[1], group, 'IDLE', lease, '-', '+', ARGV[4])
if #due == 0 then return {{}, {}} end
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'hash')
local before, ids, entries = {}, {}, {}
for i, pending in ipairs(due) do
  before[pending[1]] = pending
  ids[i] = pending[1]
end
in_slices(ids, function(...)
  for _, entry in ipairs(redis.call('XCLAIM', KEYS[1], group, consumer, lease, ...)) do
    entries[#entries + 1] = entry
  end
end)
local now, claimed, found, lost = now_ms(), {}, {}, {}
for _, entry in ipairs(entries) do
  local id = entry[1]
  found[id] = true
  local owner, count = before[id][2], before[id][4] + 1
  local log, starts, due_at = unpack(redis.call('HMGET', KEYS[2], id, id .. ':starts', id .. ':due'))
  local wait = (tonumber(due_at) or 0) - now
  local parked = owner == 'retry' or owner == 'released'
  if parked and wait > 0 then
    -- A delay longer than the lease surfaces early: park it again.
    redis.call('XCLAIM', KEYS[1], group, owner, 0, id,
      'IDLE', string.format('%.0f', math.max(lease - wait, 0)), 'RETRYCOUNT', count, 'JUSTID')
  else
    -- Parked deliveries have a recorded outcome. Any other lost its worker: marked before it
    -- runs again, so that one that kills its process is known by its marks.
    if parked then
      redis.call('HDEL', KEYS[2], id .. ':due')
    else
      starts = redis.call('HINCRBY', KEYS[2], id .. ':starts', 1)
    end
    claimed[#claimed + 1] = {id, entry[2], count, tonumber(starts) or 0, log or ''}
  end
end
for _, id in ipairs(ids) do
  -- Not claimed and not pending any more: XCLAIM found no entry and dropped it.
  if not found[id] and #redis.call('XPENDING', KEYS[1], group, id, id, 1) == 0 then
    count_lost(KEYS[2], KEYS[3], id)
    lost[#lost + 1] = id
  end
end
return {claimed, lost}
