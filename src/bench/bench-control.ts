/** How a bench is watched and ended early. */
export interface BenchControl {
  readonly signal?: AbortSignal | undefined;
  /** Called with what is being done now, in a few words. */
  readonly onStep?: ((step: string) => void) | undefined;
}
