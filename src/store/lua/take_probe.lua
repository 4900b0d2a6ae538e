-- Gives out a probe: the right to run one delivery while the circuit breaker is half-open. An open
-- one whose time is over becomes half-open by the first.
-- KEYS: control
-- ARGV: token (`<consumer>/<number>`), how many may be under way or have passed, how long a token is good for (ms)
-- Answers {'CLOSED'}, {'OPEN'}, {'NONE'} (all are given out), or {'GIVEN', how often it has opened in
-- a row, when it opened first (ms, 1970), flow}.
must_be(KEYS[1], 'hash')
local state, since, till, probes, passed, opened, first, flow = unpack(redis.call('HMGET', KEYS[1],
  'breaker', 'since', 'until', 'probes', 'passed', 'opened', 'first', 'flow'))
if not state then return {'CLOSED'} end
local now, good_for = now_ms(), tonumber(ARGV[3])
if state == 'open' then
  -- Opened in the future: the clock was set back, and must not keep it open for longer.
  if now >= (tonumber(since) or 0) and now < (tonumber(till) or 0) then return {'OPEN'} end
  probes, passed, since = '', 0, now
end
-- A worker that died keeps its token no longer than it is good for, nor if the clock was set back, nor
-- beyond the start of its next life: the same name with another nonce.
local function whose(token) return string.match(token, '^(.+)%.([^./]+)/') end
local my_name, my_life = whose(ARGV[1])
local under_way = {}
for token, expires in string.gmatch(probes or '', '(%S+)=(%d+)') do
  local left, name, life = tonumber(expires) - now, whose(token)
  local earlier = name == my_name and life ~= my_life
  if left > 0 and left <= good_for and not earlier then under_way[#under_way + 1] = token .. '=' .. expires end
end
passed = tonumber(passed) or 0
-- With none under way one is always given: what it comes to ends this, also if fewer are wanted by now
-- than have passed.
if #under_way > 0 and #under_way + passed >= tonumber(ARGV[2]) then return {'NONE'} end
under_way[#under_way + 1] = ARGV[1] .. '=' .. string.format('%.0f', now + good_for)
redis.call('HSET', KEYS[1], 'breaker', 'half-open', 'since', string.format('%.0f', tonumber(since) or now),
  'probes', table.concat(under_way, ' '), 'passed', passed)
return {'GIVEN', tonumber(opened) or 1, tonumber(first) or now, flow or ''}
