"""The JavaScript loader of a model for wasm32, which Node, Deno and browsers run."""

LOADER = r"""// The loader of a model that tcc compiled for wasm32.  It needs nothing else.
//
//   import { load } from "./model.mjs";
//   const model = await load(bytes);              // an ArrayBuffer, a Uint8Array, or the URL of the .wasm file
//   const { y } = model.run("predict", { x: { shape: [2, 3], data: new Float32Array(6) } });
//   model.state("w")                              // { shape, data }, a copy;  model.setState("w", data) writes it
const KINDS = {
  "0,8": Int8Array, "0,16": Int16Array, "0,32": Int32Array, "0,64": BigInt64Array,
  "1,8": Uint8Array, "1,16": Uint16Array, "1,32": Uint32Array, "1,64": BigUint64Array,
  "2,16": Uint16Array, "4,16": Uint16Array, "2,32": Float32Array, "2,64": Float64Array, "6,8": Uint8Array,
};
const TENSOR = 40, SPEC = 36, ENTRY = 16, OK = 0;

export async function load(source) {
  const named = typeof source === "string" || source instanceof URL;
  const bytes = named ? await (await fetch(source)).arrayBuffer() : source;
  return new Model((await WebAssembly.instantiate(bytes, {})).instance.exports);
}

export class Model {
  constructor(exports) {
    this.e = exports;
    this.name = Object.keys(exports).find((n) => n.endsWith("_info")).slice(0, -5);
    const info = this.call("info");
    this.entries = {};
    for (let k = 0; k < this.i32(info + 4); k++) {
      const at = this.i32(info + 24) + k * ENTRY, count = this.i32(at + 4);
      const specs = this.specs(this.i32(at + 12), count + this.i32(at + 8));
      this.entries[this.text(this.i32(at))] = { arguments: specs.slice(0, count), results: specs.slice(count) };
    }
    this.states = this.specs(this.i32(info + 28), this.i32(info + 32));
    this.context = this.call("create", 0);
    if (!this.context) throw this.error();
  }

  // The results by name, each { shape, data }; throws an Error that names what does not fit.
  run(entry, inputs) {
    const found = this.entries[entry], mine = [];
    if (!found) throw new Error(`no entry ${entry} (there are ${Object.keys(this.entries).join(", ")})`);
    try {
      const given = this.list(found.arguments.map((s) => this.input(s, inputs[s.name], mine)), mine);
      const shown = found.results.map((s) => this.tensor(s, Array(s.rank).fill(0), 0, mine));
      this.check(this.call(`${entry}_infer_shapes`, this.context, given, this.list(shown, mine)));
      for (;;) {
        const wanted = shown.map((t, k) => this.shape(t, found.results[k].rank));
        const made = found.results.map((s, k) => this.tensor(s, wanted[k], this.take(this.bytes(s, wanted[k]), mine), mine));
        const status = this.call(`${entry}_run`, this.context, given, this.list(made, mine), 0);
        const now = made.map((t, k) => this.shape(t, found.results[k].rank));
        if (status !== OK && `${now}` !== `${wanted}`) {  // a size that depends on data: there is room for it now
          shown.splice(0, shown.length, ...made);
          continue;
        }
        this.check(status);
        return Object.fromEntries(found.results.map((s, k) => [s.name, this.read(s, made[k])]));
      }
    } finally {
      mine.forEach((p) => this.e.tcc_free(p));
    }
  }

  state(name) {
    const { spec, at, mine } = this.place(name);
    try {
      return this.read(spec, at);
    } finally {
      mine.forEach((p) => this.e.tcc_free(p));
    }
  }

  setState(name, data) {
    const { spec, at, mine } = this.place(name), shape = this.shape(at, spec.rank);
    mine.forEach((p) => this.e.tcc_free(p));
    this.fits(spec, data, shape);
    new spec.kind(this.e.memory.buffer, this.u32(at), data.length).set(data);
  }

  destroy() {
    this.call("destroy", this.context);
    this.context = 0;
  }

  // -- the rest is between it and the library ---------------------------------------------------------------------

  place(name) {
    const spec = this.states.find((s) => s.name === name), mine = [];
    if (!spec) throw new Error(`no state ${name} (there is ${this.states.map((s) => s.name).join(", ") || "none"})`);
    const bytes = new TextEncoder().encode(name + "\0"), at = this.take(TENSOR, mine), text = this.take(bytes.length, mine);
    new Uint8Array(this.e.memory.buffer).set(bytes, text);
    this.check(this.call("state_get", this.context, text, at));
    return { spec, at, mine };
  }

  input(spec, value, mine) {
    if (!value) throw new Error(`the argument ${spec.name} is missing`);
    this.fits(spec, value.data, value.shape);
    const at = this.take(value.data.byteLength, mine);
    new spec.kind(this.e.memory.buffer, at, value.data.length).set(value.data);
    return this.tensor(spec, value.shape, at, mine);
  }

  fits(spec, data, shape) {
    const wanted = shape.reduce((a, b) => a * b, 1);
    if (!(data instanceof spec.kind)) throw new Error(`${spec.name} is ${data?.constructor?.name}, wanted ${spec.kind.name}`);
    if (data.length !== wanted) throw new Error(`${spec.name} has ${data.length} elements, wanted ${wanted}`);
  }

  tensor(spec, shape, data, mine) {
    const at = this.take(TENSOR, mine), sizes = this.take(8 * Math.max(1, shape.length), mine);
    const view = new DataView(this.e.memory.buffer);
    new Uint8Array(this.e.memory.buffer, at, TENSOR).fill(0);
    [data, 1, 0, shape.length, spec.dtype, sizes].forEach((v, k) => view.setUint32(at + 4 * k, v, true));
    shape.forEach((n, k) => view.setBigInt64(sizes + 8 * k, BigInt(n), true));
    return at;
  }

  list(tensors, mine) {
    const at = this.take(4 * Math.max(1, tensors.length), mine), view = new DataView(this.e.memory.buffer);
    tensors.forEach((t, k) => view.setUint32(at + 4 * k, t, true));
    return at;
  }

  shape(tensor, rank) {
    const view = new DataView(this.e.memory.buffer), sizes = this.u32(tensor + 20);
    return Array.from({ length: rank }, (_, k) => Number(view.getBigInt64(sizes + 8 * k, true)));
  }

  read(spec, tensor) {
    const shape = this.shape(tensor, spec.rank), count = shape.reduce((a, b) => a * b, 1);
    return { shape, data: new spec.kind(this.e.memory.buffer, this.u32(tensor), count).slice() };
  }

  bytes(spec, shape) {
    return shape.reduce((a, b) => a * b, spec.kind.BYTES_PER_ELEMENT);
  }

  take(bytes, mine) {
    const at = this.e.tcc_alloc(Math.max(8, bytes)) >>> 0;
    if (!at) throw new Error(`no memory for ${bytes} bytes`);
    mine.push(at);
    return at;
  }

  specs(at, count) {
    return Array.from({ length: count }, (_, k) => {
      const here = at + k * SPEC, dtype = this.u32(here + 24);
      const kind = KINDS[`${dtype & 255},${(dtype >> 8) & 255}`];
      return { name: this.text(this.u32(here)), rank: this.i32(here + 20), dtype, kind };
    });
  }

  call(name, ...args) {
    const function_ = this.e[`${this.name}_${name}`];
    return function_(...args);
  }

  check(status) {
    if (status !== OK) throw this.error();
  }

  error() {
    return new Error(this.text(this.call("last_error")));
  }

  i32(at) {
    return new DataView(this.e.memory.buffer).getInt32(at, true);
  }

  u32(at) {
    return this.i32(at) >>> 0;
  }

  text(at) {
    const bytes = new Uint8Array(this.e.memory.buffer, at);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }
}
"""
