-- Announces a live worker, or renews the announcement.
-- KEYS: worker
-- ARGV: nonce, time to live (ms), 'claim' (only a free name), 'replace' (the name is ours by
--       right), 'renew' (only while nobody replaced us), 'withdraw' (take it back), then fields
-- Answers OK, TAKEN (alive under another nonce).
must_be(KEYS[1], 'hash')
local nonce = redis.call('HGET', KEYS[1], 'nonce')
if nonce and nonce ~= ARGV[1] and ARGV[3] ~= 'replace' then return 'TAKEN' end
if ARGV[3] == 'replace' or ARGV[3] == 'withdraw' then redis.call('DEL', KEYS[1]) end
if ARGV[3] == 'withdraw' then return 'OK' end
redis.call('HSET', KEYS[1], 'nonce', ARGV[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'OK'
