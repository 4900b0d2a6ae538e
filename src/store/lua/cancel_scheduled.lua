-- Cancels scheduled events: they are never delivered. (They stay remembered as seen.)
-- KEYS: scheduled, scheduled:events
-- ARGV: ids
-- Answers per id 1, or 0 if no such event is scheduled (any more).
must_be(KEYS[1], 'zset')
must_be(KEYS[2], 'hash')
must_be_able(KEYS[1], 'ZREM')
must_be_able(KEYS[2], 'HDEL')
local cancelled = {}
for i, id in ipairs(ARGV) do
  cancelled[i] = redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return cancelled
