-- Ends the pause of a subscriber. Its circuit breaker stays as it is.
-- KEYS: control
-- Answers 1, or 0 if it was not paused (or its time was over).
must_be(KEYS[1], 'hash')
local till = redis.call('HGET', KEYS[1], 'paused_until')
local paused = till and (till == 'resumed' or (tonumber(till) or 0) > now_ms())
redis.call('HDEL', KEYS[1], 'paused_until', 'paused_by', 'paused_why')
return paused and 1 or 0
