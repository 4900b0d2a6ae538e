-- Refuses due events: each leaves `scheduled` and becomes a dead letter, or neither. It is forgotten as seen, as what is
-- refused at the door never was: otherwise its redrive would be taken for a duplicate.
-- KEYS: scheduled, scheduled:events, stats:router, dead:router, n seen buckets, audit if it is audited
-- ARGV: now (RFC 3339), n, then per event: id, who published it or '', number of values, fields of the letter
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
local last_seen = 4 + ARGV[2]
for i = 5, last_seen do
  must_be(KEYS[i], 'hash')
  must_be_able(KEYS[i], 'HDEL')
end
local audit = KEYS[last_seen + 1]
if audit then
  must_be(audit, 'stream')
  must_be_able(audit, 'XADD')
  must_take_more(audit)
end
local refused, at = 0, 3
while at <= #ARGV do
  local id, first = ARGV[at], at + 3
  local last = first - 1 + ARGV[at + 2]
  -- Whoever removes it refuses it, so this is the first write, and nothing below can fail.
  if redis.call('ZREM', KEYS[1], id) == 1 then
    redis.call('XADD', KEYS[4], '*', unpack(ARGV, first, last))
    redis.call('HDEL', KEYS[2], id)
    for i = 5, last_seen do redis.call('HDEL', KEYS[i], id) end
    if audit then record_refusal(audit, ARGV[1], ARGV[at + 1], first, last, KEYS[4]) end
    refused = refused + 1
  end
  at = last + 1
end
if refused > 0 then redis.call('HINCRBY', KEYS[3], 'refused', refused) end
return refused
