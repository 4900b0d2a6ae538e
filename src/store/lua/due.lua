-- Which of the scheduled events are due, the oldest first, as many as fit. Writes nothing.
-- KEYS: scheduled, scheduled:events
-- ARGV: most events, most bytes (one event may have more)
-- Answers {now (ms), when the next one is due (ms) or '' if none is, then per event: id, '<hops> <content hash> <json>' or
-- nil if it was deleted by hand}.
must_be(KEYS[1], 'zset')
must_be(KEYS[2], 'hash')
local now = now_ms()
local answer, bytes = {now, ''}, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  bytes = bytes + redis.call('HSTRLEN', KEYS[2], id)
  if #answer > 2 and bytes > tonumber(ARGV[2]) then break end
  answer[#answer + 1] = id
  answer[#answer + 1] = redis.call('HGET', KEYS[2], id)
end
local after = (#answer - 2) / 2
answer[2] = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'WITHSCORES', 'LIMIT', after, 1)[2] or ''
return answer
