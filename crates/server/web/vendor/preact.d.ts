// What the page takes of preact.js, for TypeScript, which reads no types out of it. Ours: npm has none for the standalone build.

/** What a component shows. */
export type Node = object | string | number | boolean | null | undefined

export function html (strings: TemplateStringsArray, ...values: unknown[]): Node
export function render (node: Node, parent: Element): void

export class Component<P = {}, S = {}> {
  props: P
  state: S
  setState (change: Partial<S>): void
  forceUpdate (): void
  getSnapshotBeforeUpdate? (props: P, state: S): any
  componentDidMount? (): void
  componentWillUnmount? (): void
  componentDidUpdate? (props: P, state: S, snapshot: any): void
  shouldComponentUpdate? (props: P, state: S): boolean
  render? (props: P, state: S): Node
}

export function useState<T> (first: T): [T, (next: T) => void]
export function useEffect (effect: () => void | (() => void), inputs?: unknown[]): void
export function useLayoutEffect (effect: () => void | (() => void), inputs?: unknown[]): void
export function useRef<T extends Element = any> (): { current: T }
