-- Opens a closed circuit breaker: the workers of its subscriber read nothing until its time is over.
-- KEYS: control, stats, inbox
-- ARGV: for how long (ms), why, flow (correlation ID of the events that tell of this outage), the
--       event that tells of it, or ''
-- Answers 1, or 0 if it was not closed: then nothing is written.
must_be(KEYS[1], 'hash')
if redis.call('HEXISTS', KEYS[1], 'breaker') == 1 then return 0 end
must_be(KEYS[2], 'hash')
must_be_able(KEYS[1], 'HSET')
must_be_able(KEYS[2], 'HINCRBY')
if ARGV[4] ~= '' then
  must_be(KEYS[3], 'stream')
  must_be_able(KEYS[3], 'XADD')
  must_take_more(KEYS[3])
end
local now, for_ms = now_ms(), tonumber(ARGV[1])
local since = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'breaker', 'open', 'since', since, 'until', string.format('%.0f', now + for_ms),
  'first', since, 'opened', 1, 'why', ARGV[2], 'flow', ARGV[3])
redis.call('HINCRBY', KEYS[2], 'opened', 1)
if ARGV[4] ~= '' then redis.call('XADD', KEYS[3], '*', 'event', ARGV[4]) end
return 1
