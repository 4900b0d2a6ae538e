-- What a command asked for, outside of any delivery: once, and wholly or not at all.
-- KEYS: mark, inbox, then the keys of its conditions and effects
-- ARGV: how long the mark is kept (ms), who writes it, '<conditions> <effects> <follow-ups>', values as in commit.lua
-- The mark is what makes it safe to give a command again whose answer was lost.
-- Answers DONE (also to a repetition of the same writer), REPEATED (another one did it before), CONFLICT or
-- {INVALID, why}; but for DONE nothing is written.
must_be(KEYS[1], 'string')
must_be(KEYS[2], 'stream')
must_be_able(KEYS[1], 'SET')
local mark, inbox = KEYS[1], KEYS[2]
local conditions, effects, follow_ups = unpack(numbers_of[ARGV[3]])
local writer = call('GET', mark)
if writer then return writer == ARGV[2] and 'DONE' or 'REPEATED' end
local refusal, first, at
refusal, first = check_conditions(conditions, 2, 4)
if refusal then return refusal end
refusal, at = check_effects(effects, 2 + conditions, first)
if refusal then return refusal end
check_follow_ups(follow_ups, inbox)

-- The first write; nothing below can fail.
call('SET', mark, ARGV[2], 'PX', ARGV[1])
apply(effects, 2 + conditions, first)
publish(follow_ups, inbox, at)
return 'DONE'
