-- What wrk sends: requests from a file (traffic.py writes it), each time with a new UUIDv7 in the body.
-- At the end one line of JSON: latencies in milliseconds, the rest as counted.
--   FOOTFALL_BENCH_REQUESTS=requests.txt wrk ... -s load.lua http://127.0.0.1:8000
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } footfall_timeval; int gettimeofday(footfall_timeval *, void *);")

local bit = require("bit")
local hex = {} -- all numbers of 16 bits, as four digits
local requests = {} -- all but the id and the body's end
local moment = ffi.new("footfall_timeval")
local next_request, threads, shown_ms, shown = 0, 0, 0, ""

function setup(thread)
  thread:set("number", threads) -- threads have a random sequence each
  threads = threads + 1
end

function init()
  ffi.C.gettimeofday(moment, nil)
  math.randomseed(tonumber(moment.s) * 1000 + tonumber(moment.us) % 1000 + number * 7919)
  for value = 0, 65535 do hex[value] = string.format("%04x", value) end
  local file = assert(io.open(os.getenv("FOOTFALL_BENCH_REQUESTS")))
  for text in file:read("*a"):gmatch("([^\1]+)\1") do requests[#requests + 1] = text end
  file:close()
  next_request = math.random(#requests)
end

function request()
  ffi.C.gettimeofday(moment, nil)
  local ms = tonumber(moment.s) * 1000 + math.floor(tonumber(moment.us) / 1000)
  if ms ~= shown_ms then
    shown_ms = ms
    shown = string.format("%012x", ms)
    shown = shown:sub(1, 8) .. "-" .. shown:sub(9) .. "-7"
  end
  next_request = next_request % #requests + 1
  local random = math.random
  local a, b = random(0, 65535), random(0, 16383)
  return requests[next_request] .. shown .. hex[a]:sub(2) .. "-" .. hex[32768 + b] .. "-"
    .. hex[random(0, 65535)] .. hex[random(0, 65535)] .. hex[random(0, 65535)] .. '"}'
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'RESULT {"seconds": %.3f, "answers": %d, "refused": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
