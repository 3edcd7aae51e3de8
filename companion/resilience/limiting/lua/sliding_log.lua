-- State: a list of (time, cost, units used up to and including it), oldest first.
local function entry(index)
  local packed = redis.call('LINDEX', key, index)
  if packed then return struct.unpack('<ddd', packed) end
end

-- The first index from `low` on for which `holds(time, sum)`; the length of the list if none.
-- Mostly it is `low` itself, else it is found by bisection.
local function first_where(low, holds)
  local at, _, sum = entry(low)
  if not at or holds(at, sum) then return low end
  local high = redis.call('LLEN', key)
  low = low + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    at, _, sum = entry(middle)
    if holds(at, sum) then high = middle else low = middle + 1 end
  end
  return low
end

local newest, _, upto = entry(-1)
if newest and newest > now then -- the clock was set back: what lies ahead counts as of now
  for index, packed in ipairs(redis.call('LRANGE', key, 0, -1)) do
    local at, units, sum = struct.unpack('<ddd', packed)
    redis.call('LSET', key, index - 1, struct.pack('<ddd', math.min(at, now), units, sum))
  end
  newest = now
end

-- What has left the window goes when somebody is let in; until then it is passed over.
local first = first_where(0, function(at) return at > now - window end)
local used = 0
local oldest, units, sum = entry(first)
if oldest then used = upto - (sum - units) end

if used + cost > most then
  -- There is room when so many units have left that the rest and the cost fit.
  local enough = upto + cost - most
  local frees = entry(first_where(first, function(_, sum_there) return sum_there >= enough end))
  return answer(false, burst - used, frees + window - now, newest + window - now)
end
if cost > 0 then
  if first > 0 then redis.call('LTRIM', key, first, -1) end
  redis.call('RPUSH', key, struct.pack('<ddd', now, cost, (oldest and upto or 0) + cost))
  redis.call('PEXPIRE', key, math.ceil(window * 1000))
  return answer(true, burst - used - cost, 0, window)
end
return answer(true, burst - used, 0, oldest and newest + window - now or 0)
