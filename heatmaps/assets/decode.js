"use strict";
// The page's data: names from the JSON block, columns from the gzip'ed block beside it.
const Decode = (() => {
  const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f8: Float64Array };

  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const binary = atob(base64);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function inflated(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  // Resolves to the page's own data.
  async function data() {
    if (typeof DecompressionStream === "undefined") {
      throw new Error("this browser is too old for this report: it has no DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 have)");
    }
    const block = document.getElementById("columns");
    const found = await unpacked(JSON.parse(document.getElementById("data").textContent), block.textContent);
    block.remove();
    return found;
  }

  // Resolves to the JSON object, its `columns` replaced by typed arrays by name.
  async function unpacked(json, block) {
    const buffer = await inflated(bytesOf(block.trim()));
    const columns = {};
    for (const [name, { at, type, length }] of Object.entries(json.columns)) {
      columns[name] = new TYPES[type](buffer, at, length);
    }
    return Object.assign(json, { columns });
  }

  // Columns `name.*` by what follows the dot.
  function group(columns, name) {
    const out = {};
    for (const [key, column] of Object.entries(columns)) {
      if (key.startsWith(name + ".")) out[key.slice(name.length + 1)] = column;
    }
    return out;
  }

  return { data, unpacked, group };
})();
