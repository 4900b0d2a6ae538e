-- Pauses a subscriber: its workers read nothing new and reclaim nothing until then.
-- KEYS: control
-- ARGV: until (ms, 1970, this server's clock), or 'resumed' (until somebody resumes it), by whom, why
must_be(KEYS[1], 'hash')
redis.call('HSET', KEYS[1], 'paused_until', ARGV[1], 'paused_by', ARGV[2], 'paused_why', ARGV[3])
return 1
