-- Sends a dead letter back, once: it leaves its stream and enters the other, or neither.
-- KEYS: dead, target
-- ARGV: id of the letter, then the fields of the new entry
-- Answers 1, or 0 if the letter is no longer there.
must_be(KEYS[1], 'stream')
must_be(KEYS[2], 'stream')
must_be_able(KEYS[1], 'XDEL')
must_be_able(KEYS[2], 'XADD')
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2)) -- first: should it fail, the letter is still there
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
