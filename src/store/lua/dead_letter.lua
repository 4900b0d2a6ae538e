-- Gives a delivery up: writes the dead letter and settles the entry, both or neither.
-- KEYS: stream, attempts, dead
-- ARGV: group, consumer, id, count, delete, then the fields of the letter
-- Answers HELD (done), GONE, FENCED.
must_be(KEYS[1], 'stream')
local state = fence(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if state ~= 'HELD' then return state end
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'stream')
must_be_able(KEYS[1], 'XACK')
must_be_able(KEYS[2], 'HDEL')
must_be_able(KEYS[3], 'XADD')
if ARGV[5] == '1' then must_be_able(KEYS[1], 'XDEL') end
redis.call('XADD', KEYS[3], '*', unpack(ARGV, 6))
forget(KEYS[2], ARGV[3])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[5] == '1' then redis.call('XDEL', KEYS[1], ARGV[3]) end
return state
