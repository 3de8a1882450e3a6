/**
 * The part of the WebAssembly interface that Sluice uses, typed: TypeScript has it in the libraries
 * for browsers only.
 */
export interface WasmMemory {
  readonly buffer: SharedArrayBuffer;
}

/** A function of one instance that another may import. */
export type WasmFunction = (...values: number[]) => number;

export interface WasmInstance {
  readonly exports: Readonly<Record<string, unknown>>;
}

interface WebAssemblyInterface {
  readonly Memory: new (descriptor: {
    readonly initial: number;
    readonly maximum: number;
    readonly shared: true;
  }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: Readonly<Record<string, Readonly<Record<string, WasmMemory | WasmFunction>>>>,
  ) => WasmInstance;
}

export const { WebAssembly: wasm } = globalThis as unknown as {
  readonly WebAssembly: WebAssemblyInterface;
};
