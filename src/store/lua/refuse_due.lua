-- Refuses due events: each leaves `scheduled` and becomes a dead letter, or neither. It is forgotten as seen, as what is
-- refused at the door never was: otherwise its redrive would be taken for a duplicate.
-- KEYS: scheduled, scheduled:events, stats:router, dead:router, seen buckets
-- ARGV: per event: id, number of values, fields of the letter
-- Answers how many were refused: another router moved the others before, or they were cancelled.
must_be(KEYS[1], 'zset')
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'hash')
must_be(KEYS[4], 'stream')
must_be_able(KEYS[1], 'ZREM')
must_be_able(KEYS[2], 'HDEL')
must_be_able(KEYS[3], 'HINCRBY')
must_be_able(KEYS[4], 'XADD')
must_take_more(KEYS[4])
for i = 5, #KEYS do
  must_be(KEYS[i], 'hash')
  must_be_able(KEYS[i], 'HDEL')
end
local refused, at = 0, 1
while at <= #ARGV do
  local id, values = ARGV[at], tonumber(ARGV[at + 1])
  -- Whoever removes it refuses it, so this is the first write, and nothing below can fail.
  if redis.call('ZREM', KEYS[1], id) == 1 then
    redis.call('XADD', KEYS[4], '*', unpack(ARGV, at + 2, at + 1 + values))
    redis.call('HDEL', KEYS[2], id)
    for i = 5, #KEYS do redis.call('HDEL', KEYS[i], id) end
    refused = refused + 1
  end
  at = at + 2 + values
end
if refused > 0 then redis.call('HINCRBY', KEYS[3], 'refused', refused) end
return refused
