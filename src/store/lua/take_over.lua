-- A restarted worker takes its predecessor's deliveries at once: they go to `released`, noted as
-- having lost their worker, and come back through reclaiming at the pace of free slots.
-- KEYS: stream, attempts, stats
-- ARGV: group, consumer of the predecessor, idle (ms) beyond any lease, limit
-- Answers how many were moved; the consumer is deleted when nothing is left.
must_be_claimable(KEYS[1], KEYS[2], KEYS[3])
must_be_able_to(KEYS[1], 'XGROUP', 'DELCONSUMER')
must_be_able(KEYS[2], 'HSETNX')
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[2])
for _, entry in ipairs(pending) do
  local id = entry[1]
  local moved = redis.call('XCLAIM', KEYS[1], ARGV[1], 'released', 0, id,
    'IDLE', ARGV[3], 'RETRYCOUNT', entry[4], 'JUSTID')
  if #moved == 0 then
    count_lost(KEYS[2], KEYS[3], id)
  else
    redis.call('HSETNX', KEYS[2], id .. ':starts', 0)
    redis.call('HDEL', KEYS[2], id .. ':due')
  end
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return #pending
