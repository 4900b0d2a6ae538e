-- Marks a delivery that lost its worker before it runs again, so that one that kills its process
-- is known by its marks. Made when it really starts: what only waits for a slot is no suspect.
-- KEYS: stream, attempts
-- ARGV: group, consumer, id, count, marks with this one (set, not added: a resend changes nothing)
-- Answers HELD (marked), GONE, FENCED.
must_be(KEYS[1], 'stream')
local state = fence(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if state ~= 'HELD' then return state end
must_be(KEYS[2], 'hash')
redis.call('HSET', KEYS[2], ARGV[3] .. ':starts', ARGV[5])
return state
