-- Forgets a worker that gives no sign of life any more.
-- KEYS: fleet, worker
-- ARGV: field of the worker in fleet
-- Answers 1, or 0 if it is alive, or was forgotten before.
must_be(KEYS[1], 'hash')
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
