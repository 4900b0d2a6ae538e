-- Whether a batch of the inbox may be routed by a plain transaction (see transact.rs): nothing in it
-- asks for a decision that only route.lua can take. It carries no payloads, and writes nothing.
-- KEYS: inbox, stats:router, attempts, n seen buckets (the current one first), target streams
-- ARGV: group, consumer, n, how many entries, the first entry's ID, the last one's, then the event IDs
-- Answers 'clean', or what speaks against it.
local inbox, stats, attempts = KEYS[1], KEYS[2], KEYS[3]
local buckets, count, first, last = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
must_be(inbox, 'stream')
must_be(stats, 'hash')
-- What the transaction will run: it would not stop at a command that is refused.
must_be_able(inbox, 'XACK', 'XTRIM')
must_be_able(stats, 'HINCRBY')
must_be_able(KEYS[4], 'HSET', 'PEXPIRE')
for i = 4, 3 + buckets do must_be(KEYS[i], 'hash') end
for i = 4 + buckets, #KEYS do
  must_be(KEYS[i], 'stream')
  must_be_able(KEYS[i], 'XADD')
  must_take_more(KEYS[i])
end

-- Where it is the oldest, none before it is still owed: a batch does not overtake another.
if holds_all(inbox, ARGV[1], ARGV[2], attempts) ~= first then return 'others hold entries, or older ones are owed' end
if redis.call('XPENDING', inbox, ARGV[1])[1] < count then return 'some of it is no longer owed' end
local head = redis.call('XRANGE', inbox, '-', '+', 'COUNT', 1)[1]
if not head or head[1] ~= first then return 'it is not the head of the inbox' end
if id_after(last) == last then return 'its last ID cannot be counted on' end

for i = 4, 3 + buckets do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    for from = 7, #ARGV, 4000 do
      local found = redis.call('HMGET', KEYS[i], unpack(ARGV, from, math.min(from + 3999, #ARGV)))
      for at = 1, #found do
        if found[at] then return 'some of it was seen before' end
      end
    end
  end
end
return 'clean'
