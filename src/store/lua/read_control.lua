-- Reads what may stop the workers of a subscriber, and the clock by which it does.
-- KEYS: control
-- ARGV: fields
-- Answers {now (ms, 1970), {values}}.
must_be(KEYS[1], 'hash')
return {now_ms(), redis.call('HMGET', KEYS[1], unpack(ARGV))}
