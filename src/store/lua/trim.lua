-- Trims one step of a stream's history, never what a group has yet to settle; and mends how Redis counts what its
-- groups have read.
-- KEYS: stream
-- ARGV: maxlen ('' for none), oldest ID to keep by retention ('' for none), step, then the groups that must exist
-- Answers {trimmed, excess entries that a group holds back or a later step takes, the group that holds back or '', missing group or ''}.
must_be(KEYS[1], 'stream')
local stream, step = KEYS[1], tonumber(ARGV[3])
if redis.call('EXISTS', stream) == 0 then return {0, 0, '', ''} end

local function fields(list)
  local by_name = {}
  for i = 1, #list, 2 do by_name[list[i]] = list[i + 1] end
  return by_name
end
local whole -- looked at when a group seems to lag: payloads come along
local may_set = redis.acl_check_cmd('XGROUP', 'SETID', stream, 'any', '0')
local present, floor, slowest = {}, nil, ''
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = fields(info)
  present[group.name] = true
  -- A group that has been given everything lags by nothing. Redis may think otherwise: its append-only file does
  -- not tell how many entries a group has read, and after entries were deleted it does not know. From here on its
  -- count is right, also while entries wait.
  if may_set and group.lag ~= 0 then whole = whole or fields(redis.call('XINFO', 'STREAM', stream)) end
  if whole and group.lag ~= 0 and group['last-delivered-id'] == whole['last-generated-id'] then
    redis.call('XGROUP', 'SETID', stream, group.name, whole['last-generated-id'], 'ENTRIESREAD', whole['entries-added'])
  end
  -- The oldest ID that this group has yet to settle: the one after the last delivered,
  local need = id_after(group['last-delivered-id'])
  -- or the first pending, unless the group was set back behind it.
  local first = group.pending > 0 and redis.call('XPENDING', stream, group.name)[2]
  if first and older(first, need) then need = first end
  if not floor or older(need, floor) then floor, slowest = need, group.name end
end
for i = 4, #ARGV do
  if not present[ARGV[i]] then return {0, 0, '', ARGV[i]} end
end

local cut = ARGV[2] ~= '' and ARGV[2] or nil
local excess = ARGV[1] == '' and 0 or math.max(redis.call('XLEN', stream) - tonumber(ARGV[1]), 0)
if excess > 0 then
  -- XRANGE brings payloads along: look at about 4 MB at a time.
  local average = redis.call('MEMORY', 'USAGE', stream) / redis.call('XLEN', stream)
  step = math.max(math.min(step, math.floor(4194304 / average)), 1)
  -- The ID at which `maxlen` entries remain, looked for a bounded number of entries ahead.
  local head = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(excess, step) + 1)
  local by_length = #head > 0 and head[#head][1]
  if by_length and (not cut or older(cut, by_length)) then cut = by_length end
end
if not cut then return {0, 0, '', ''} end
local held = floor and older(floor, cut)
local trimmed = redis.call('XTRIM', stream, 'MINID', '=', held and floor or cut)
local oldest = held and redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local kept = oldest and older(oldest[1], cut)
return {trimmed, math.max(excess - trimmed, 0), kept and slowest or '', ''}
