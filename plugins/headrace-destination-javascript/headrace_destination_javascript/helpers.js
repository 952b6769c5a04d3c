// Helpers for scripts that speak of them, beside the prelude: hashes and encodings, which the engine does not have.
(function () {
  "use strict";
  function bytesOf(text) {
    if (typeof text !== "string" && typeof text !== "number") throw new TypeError("a text is needed"); // no hash of undefined
    const escaped = encodeURIComponent(text);
    const bytes = [];
    for (let at = 0; at < escaped.length; at += 1) {
      if (escaped[at] === "%") {
        bytes.push(parseInt(escaped.slice(at + 1, at + 3), 16));
        at += 2;
      } else bytes.push(escaped.charCodeAt(at));
    }
    return bytes;
  }

  // SHA-256, FIPS 180-4.
  let constants; // of the rounds, made when they are first needed
  function digest(message) {
    if (constants === undefined) {
      constants = { rounds: [], start: [] };
      for (let candidate = 2; constants.rounds.length < 64; candidate += 1) {
        let divisor = 2;
        while (divisor * divisor <= candidate && candidate % divisor) divisor += 1;
        if (divisor * divisor <= candidate) continue;
        const fraction = (root) => ((root - Math.floor(root)) * 4294967296) | 0;
        if (constants.start.length < 8) constants.start.push(fraction(Math.sqrt(candidate)));
        constants.rounds.push(fraction(Math.cbrt(candidate)));
      }
    }
    const bytes = message.concat([0x80]);
    while (bytes.length % 64 !== 56) bytes.push(0);
    const bits = message.length * 8;
    for (let shift = 7; shift >= 0; shift -= 1) bytes.push(Math.floor(bits / 2 ** (8 * shift)) & 255);
    const sums = constants.start.slice();
    const words = new Int32Array(64);
    const turned = (word, by) => (word >>> by) | (word << (32 - by));
    for (let block = 0; block < bytes.length; block += 64) {
      for (let at = 0; at < 64; at += 1) {
        if (at < 16) {
          const from = block + at * 4;
          words[at] = (bytes[from] << 24) | (bytes[from + 1] << 16) | (bytes[from + 2] << 8) | bytes[from + 3];
        } else {
          const early = words[at - 15], late = words[at - 2];
          words[at] =
            words[at - 16] + (turned(early, 7) ^ turned(early, 18) ^ (early >>> 3)) +
            words[at - 7] + (turned(late, 17) ^ turned(late, 19) ^ (late >>> 10));
        }
      }
      let [a, b, c, d, e, f, g, h] = sums;
      for (let at = 0; at < 64; at += 1) {
        const one = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + constants.rounds[at] + words[at]) | 0;
        const two = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        h = g; g = f; f = e; e = (d + one) | 0; d = c; c = b; b = a; a = (one + two) | 0;
      }
      for (const [at, word] of [a, b, c, d, e, f, g, h].entries()) sums[at] = (sums[at] + word) | 0;
    }
    return sums.flatMap((word) => [word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255]);
  }
  const hex = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const sha256 = (text) => hex(digest(bytesOf(text)));
  function hmacSha256(key, text) {
    let padded = bytesOf(key);
    if (padded.length > 64) padded = digest(padded);
    padded = padded.concat(new Array(64 - padded.length).fill(0));
    const inner = digest(padded.map((byte) => byte ^ 0x36).concat(bytesOf(text)));
    return hex(digest(padded.map((byte) => byte ^ 0x5c).concat(inner)));
  }
  const base64 = (text) => btoa(String.fromCharCode(...bytesOf(text)));
  const formEncode = (values) =>
    Object.entries(values)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
      .join("&");
  globalThis.headrace = { sha256, hmacSha256, base64, formEncode };
})();
