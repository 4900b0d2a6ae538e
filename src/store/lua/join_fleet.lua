-- A process joins the fleet: learns (or founds) the dataset and the number of its configuration.
-- KEYS: fleet
-- ARGV: a fresh dataset ID, content hash of the configuration
-- Answers {dataset, generation of this configuration, newest generation}.
must_be(KEYS[1], 'hash')
redis.call('HSETNX', KEYS[1], 'dataset', ARGV[1])
local field = 'config:' .. ARGV[2]
local generation = redis.call('HGET', KEYS[1], field)
if not generation then
  generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
  redis.call('HSET', KEYS[1], field, generation)
end
return {redis.call('HGET', KEYS[1], 'dataset'), tonumber(generation), tonumber(redis.call('HGET', KEYS[1], 'generation'))}
