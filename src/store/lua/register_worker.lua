-- Announces a live worker, or renews the announcement.
-- KEYS: worker, fleet
-- ARGV: nonce, time to live (ms), 'claim' (only a free name), 'replace' (the name is ours by
--       right), 'renew' (only while nobody replaced us), 'withdraw' (take it back), field of the worker in
--       fleet, by which it is found, then fields
-- Answers OK, TAKEN (alive under another nonce).
must_be(KEYS[1], 'hash')
must_be(KEYS[2], 'hash')
must_be_able(KEYS[2], ARGV[3] == 'withdraw' and 'HDEL' or 'HSET')
must_be_able(KEYS[1], 'HGET', 'HSET', 'PEXPIRE')
if ARGV[3] == 'replace' or ARGV[3] == 'withdraw' then must_be_able(KEYS[1], 'DEL') end
local nonce = redis.call('HGET', KEYS[1], 'nonce')
if nonce and nonce ~= ARGV[1] and ARGV[3] ~= 'replace' then return 'TAKEN' end
if ARGV[3] == 'replace' or ARGV[3] == 'withdraw' then redis.call('DEL', KEYS[1]) end
if ARGV[3] == 'withdraw' then
  redis.call('HDEL', KEYS[2], ARGV[4])
  return 'OK'
end
redis.call('HSET', KEYS[1], 'nonce', ARGV[1], unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[4], ARGV[1])
return 'OK'
