declare module '*/mock/heat.mjs' {
  export const DEFAULT_CONFIG: unknown;
}

declare module '*/mock/concert.mjs' {
  export class Concert {
    board(node: string): unknown;
    channel(id: string): unknown;
    detail(channel: unknown): unknown;
  }
}
