-- Notes how a subscriber is, and lets an event tell of it in the same step.
-- KEYS: fleet, inbox
-- ARGV: field of the mark in fleet, the mark as it was read ('' if there was none), the new one ('' for
--       none), the event that tells of it, or ''
-- Answers 1, or 0 if the mark is another by now (another router was faster): then nothing is written.
must_be(KEYS[1], 'hash')
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
must_be_able(KEYS[1], ARGV[3] == '' and 'HDEL' or 'HSET')
if ARGV[4] ~= '' then
  must_be(KEYS[2], 'stream')
  must_be_able(KEYS[2], 'XADD')
  must_take_more(KEYS[2])
  redis.call('XADD', KEYS[2], '*', 'event', ARGV[4])
end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
