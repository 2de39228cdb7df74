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

declare module '*/mock/alerts.mjs' {
  export function alertsOf(question: unknown, isKnown: (channel: string) => boolean): unknown;
}

declare module '*/mock/letters.mjs' {
  export class Letters {
    page(query: { after?: string | undefined }): unknown;
    found(id?: string): unknown[];
    remove(letters: unknown[]): void;
  }
}
