-- Commits deliveries with everything that their handlers asked for: each by itself, wholly or not at all.
-- KEYS: stream, attempts, inbox, then per delivery the keys of its conditions and effects, in their order
-- ARGV: group, consumer, delete, then per delivery, in the order of IDs: id, shape, values
--   shape: '<count> <troubled> <conditions> <effects> <follow-ups> <values>', in one argument because a script pays for each
--   values, per condition: string, present ('1'/'0'), value | field, name, present, value | version, expected
--     per effect: '<name> <number of arguments>', arguments
--     per follow-up: json, hops
-- Answers per delivery: HELD (done), GONE, FENCED, CONFLICT, {INVALID, why} or {ERROR, why} (to be
-- sent again); of what is not HELD nothing is written.
must_be(KEYS[1], 'stream')
must_be(KEYS[2], 'hash')
must_be(KEYS[3], 'stream')
must_be_able(KEYS[1], 'XACK')
if ARGV[3] == '1' then must_be_able(KEYS[1], 'XDEL') end
local stream, attempts, inbox, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

local acknowledged -- the newest delivery whose acknowledgement was written
-- Commits one delivery that is ours; `keys` come before its own, `at` is its first value.
local function commit(id, shape, keys, at)
  local troubled, conditions, effects, follow_ups = shape[2] == 1, shape[3], shape[4], shape[5]
  if troubled then must_be_able(attempts, 'HDEL') end
  local refusal, first
  refusal, first = check_conditions(conditions, keys, at)
  if refusal then return refusal end
  refusal, at = check_effects(effects, keys + conditions, first)
  if refusal then return refusal end
  check_follow_ups(follow_ups, inbox)

  -- The first write; nothing below can fail.
  if call('XACK', stream, group, id) == 0 then return 'GONE' end
  acknowledged = id
  apply(effects, keys + conditions, first)
  publish(follow_ups, inbox, at)
  if troubled then forget(attempts, id) end
  if ARGV[3] == '1' then call('XDEL', stream, id) end
  return 'HELD'
end

local position, ids = 4, {}
while position <= #ARGV do
  ids[#ids + 1] = ARGV[position]
  position = position + 2 + numbers_of[ARGV[position + 1]][6]
end
local held = not holds_all(stream, group, ARGV[2], attempts) and fence_all(stream, group, ARGV[2], ids)
local answers, keys, at = {}, 3, 4
for i, id in ipairs(ids) do
  local shape = numbers_of[ARGV[at + 1]]
  local answer = held and held(id, shape[1]) or 'HELD'
  if answer == 'HELD' then
    local ran
    ran, answer = pcall(commit, id, shape, keys, at + 2)
    if not ran then
      -- Half of it is written, against all checks: an error that nobody may take for an answer.
      if acknowledged == id then error(answer) end
      answer = {'ERROR', answer.err or tostring(answer)}
    end
    -- What was settled before needs no other answer than that.
    if answer ~= 'HELD' and not held then
      local state = fence(stream, group, ARGV[2], id, shape[1])
      if state ~= 'HELD' then answer = state end
    end
  end
  answers[i] = answer
  keys = keys + shape[3] + shape[4]
  at = at + 2 + shape[6]
end
return answers
