-- Moves due events to their domain stream: each leaves `scheduled` and enters the stream, or neither.
-- KEYS: scheduled, scheduled:events, stats:router, target stream
-- ARGV: per event: id, type, to, hops, event
-- Answers how many were moved: another router moved the others before, or they were cancelled.
must_be(KEYS[1], 'zset')
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'hash')
must_be(KEYS[4], 'stream')
must_be_able(KEYS[1], 'ZREM')
must_be_able(KEYS[2], 'HDEL')
must_be_able(KEYS[3], 'HINCRBY')
must_be_able(KEYS[4], 'XADD')
must_take_more(KEYS[4])
local moved = 0
for at = 1, #ARGV, 5 do
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
    moved = moved + 1
  end
end
if moved > 0 then redis.call('HINCRBY', KEYS[3], 'routed', moved) end
return moved
