-- State: the number of the window, the units used in the one before, the units used in it.
local number = math.floor(now / window)
local left = (number + 1) * window - now
local previous, current = 0, 0
local state = redis.call('GET', key)
if state then
  local last, before, units = struct.unpack('<ddd', state)
  if last == number then
    previous, current = before, units
  elseif last == number - 1 then
    previous = units
  end
end

local used = previous * left / window + current
if used + cost > most then
  local room = burst - cost - current
  local wait
  if previous > 0 and room >= 0 then
    wait = left - room * window / previous
  else
    wait = left + window - (burst - cost) * window / current
  end
  return answer(false, burst - used, wait, current > 0 and left + window or left)
end
current = current + cost
local reset = current > 0 and left + window or previous > 0 and left or 0
if cost > 0 then keep(struct.pack('<ddd', number, previous, current), reset) end
return answer(true, burst - used - cost, 0, reset)
