// Runs before the customer's script in each new context: takes away the clock, chance and what waits.
// Gives (timeMs, seed) => run; run(name, text) calls a function of the script and gives what it returned as JSON.
(function (timeMs, seed) {
  "use strict";
  const { parse, stringify } = JSON;
  const { apply, construct } = Reflect;
  const { isArray } = Array;
  const { defineProperty } = Object;
  const look = globalThis.eval; // under another name: looks in the global scope
  const hidden = (value) => ({ value, writable: true, configurable: true, enumerable: false });

  for (const name of ["performance", "Atomics", "SharedArrayBuffer", "WeakRef", "FinalizationRegistry", "queueMicrotask"]) {
    delete globalThis[name];
  }

  // Time stands still at the event's own, and every zone is UTC, so that the same event gives the same request.
  const Real = Date;
  const moments = Real.prototype;
  const zoned = /(?:Z|GMT|UTC|[+-]\d\d:?\d\d)\s*(?:\(.*\))?$/i;
  const day = /^[+-]?\d{4,6}(?:-\d\d){0,2}$/;
  function momentOf(text) {
    const written = String(text).trim();
    if (zoned.test(written) || day.test(written)) return Real.parse(written);
    const iso = Real.parse(`${written}Z`);
    return iso === iso ? iso : Real.parse(`${written} UTC`);
  }
  function Clock(...parts) {
    if (new.target === undefined) return new Real(timeMs).toUTCString();
    const [first] = parts;
    if (parts.length === 0) return construct(Real, [timeMs], new.target);
    if (parts.length > 1) return construct(Real, [apply(Real.UTC, Real, parts)], new.target);
    return construct(Real, [typeof first === "string" ? momentOf(first) : first], new.target);
  }
  Clock.now = () => timeMs;
  Clock.UTC = Real.UTC;
  Clock.parse = momentOf;
  Clock.prototype = moments;
  defineProperty(moments, "constructor", hidden(Clock));
  for (const part of ["FullYear", "Month", "Date", "Hours", "Minutes", "Seconds", "Milliseconds", "Day"]) {
    defineProperty(moments, `get${part}`, hidden(moments[`getUTC${part}`]));
    if (part !== "Day") defineProperty(moments, `set${part}`, hidden(moments[`setUTC${part}`]));
  }
  const utcText = moments.toUTCString; // "Sun, 29 Nov 2026 08:00:00 GMT"
  const part = (from, to) => function () { return apply(utcText, this, []).slice(from, to); };
  for (const name of ["toString", "toLocaleString"]) defineProperty(moments, name, hidden(part(0)));
  for (const name of ["toDateString", "toLocaleDateString"]) defineProperty(moments, name, hidden(part(0, 16)));
  for (const name of ["toTimeString", "toLocaleTimeString"]) defineProperty(moments, name, hidden(part(17)));
  defineProperty(moments, "getTimezoneOffset", hidden(() => 0));
  defineProperty(globalThis, "Date", hidden(Clock));

  // Chance is drawn from the event's id (mulberry32).
  let state = seed;
  Math.random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };

  const silent = () => undefined;
  globalThis.console = { log: silent, info: silent, warn: silent, error: silent, debug: silent };

  function written(request) {
    if (typeof request !== "object" || request === null || isArray(request)) return { request };
    const { body, ...rest } = request;
    if (body === undefined || body === null) return { request: rest };
    return typeof body === "string" ? { request: rest, text: body } : { request: rest, json: stringify(body) ?? null };
  }

  return function run(name, text) {
    const called = look(`typeof ${name} === "undefined" ? undefined : ${name}`);
    if (typeof called !== "function") return stringify({ missing: true });
    const made = apply(called, undefined, parse(text));
    if (made === undefined || made === null) return stringify({ requests: [] });
    if (typeof made.then === "function") return stringify({ promise: true });
    return stringify({ requests: (isArray(made) ? made : [made]).map(written) });
  };
})
