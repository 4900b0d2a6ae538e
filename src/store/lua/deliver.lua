-- Moves due events to their domain stream: each leaves `scheduled` and enters the stream, or neither.
-- KEYS: scheduled, scheduled:events, stats:router, target stream, audit if it is audited
-- ARGV: now (RFC 3339), then per event: id, type, to, hops, event, who published it or ''
-- Answers how many were moved: another router moved the others before, or they were cancelled.
must_be(KEYS[1], 'zset')
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'hash')
must_be_able(KEYS[1], 'ZREM')
must_be_able(KEYS[2], 'HDEL')
must_be_able(KEYS[3], 'HINCRBY')
for i = 4, #KEYS do
  must_be(KEYS[i], 'stream')
  must_be_able(KEYS[i], 'XADD')
  must_take_more(KEYS[i])
end
local moved = 0
for at = 2, #ARGV, 6 do
  local id, hops = ARGV[at], ARGV[at + 3]
  -- Whoever removes it moves it, so this is the first write, and nothing below can fail.
  if redis.call('ZREM', KEYS[1], id) == 1 then
    if hops == '0' then
      redis.call('XADD', KEYS[4], '*', 'id', id, 'type', ARGV[at + 1], 'to', ARGV[at + 2], 'event', ARGV[at + 4])
    else
      redis.call('XADD', KEYS[4], '*', 'id', id, 'type', ARGV[at + 1], 'to', ARGV[at + 2], 'event', ARGV[at + 4],
        'hops', hops)
    end
    redis.call('HDEL', KEYS[2], id)
    if KEYS[5] then record(KEYS[5], ARGV[1], id, ARGV[at + 1], ARGV[at + 5], 'routed', KEYS[4]) end
    moved = moved + 1
  end
end
if moved > 0 then redis.call('HINCRBY', KEYS[3], 'routed', moved) end
return moved
