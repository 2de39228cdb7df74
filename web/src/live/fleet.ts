// One number for the whole fleet from the rows of a board.

import type { Board, BoardNode, GuaranteeRow, PushRow } from '../contract/types';
import type { NodeReports } from './age';

/** A node that did not report for this long is silent. */
const SILENT_MS = 5_000;
/** A breach is red for an hour; after that it is history. */
const RECENT_MS = 3_600_000;

export interface Fleet {
  ready: number;
  total: number;
  notReady: string[];
  connections: number;
  sends: number;
  deliveries: number;
  bystandersP99: number;
  bystandersNode: string;
  shed: number;
  shedNode: string;
  configVersion: number;
  applied: number;
  /** The lowest bar of warm: from this cost on a channel may appear. */
  lowestBar: number;
}

export function fleetOf(board: Board): Fleet {
  const nodes = board.nodes;
  const slowest = most(nodes, (node) => node.bystanders_ms.p99);
  const shedding = most(nodes, (node) => node.shed_level);
  const configVersion = Math.max(board.config_version, ...nodes.map((node) => node.config_version));
  return {
    ready: nodes.filter((node) => node.is_ready).length,
    total: nodes.length,
    notReady: nodes.filter((node) => !node.is_ready).map((node) => node.name),
    connections: sum(nodes, (node) => node.connections),
    sends: sum(nodes, (node) => node.sends),
    deliveries: sum(nodes, (node) => node.deliveries),
    bystandersP99: slowest?.bystanders_ms.p99 ?? 0,
    bystandersNode: slowest?.name ?? '',
    shed: shedding?.shed_level ?? 0,
    shedNode: shedding?.name ?? '',
    configVersion,
    applied: nodes.filter((node) => node.config_version === configVersion).length,
    lowestBar: nodes.length === 0 ? 0 : Math.min(...nodes.map((node) => node.bars[0])),
  };
}

export function silentNodes(board: Board, reports: NodeReports, now: number): string[] {
  return board.nodes.map((node) => node.name).filter((name) => reports.silentMs(name, now) > SILENT_MS);
}

/** The guarantee that may have been broken last; nothing if all held. */
export function worstGuarantee(rows: readonly GuaranteeRow[]): GuaranteeRow | undefined {
  return most(
    rows.filter((row) => row.breaches > 0),
    (row) => row.last ?? 0,
  );
}

export function isRecent(row: GuaranteeRow, nodeTime: number): boolean {
  return row.breaches > 0 && (row.last === undefined || nodeTime - row.last < RECENT_MS);
}

function sum(nodes: readonly BoardNode[], of: (node: BoardNode) => number): number {
  return nodes.reduce((total, node) => total + of(node), 0);
}

function most<T>(rows: readonly T[], of: (row: T) => number): T | undefined {
  let found: T | undefined;
  for (const row of rows) if (found === undefined || of(row) > of(found)) found = row;
  return found;
}

export const PUSH_COUNTS = ['taken', 'not_taken', 'unknown', 'gone', 'dead', 'credential'] as const;

/** What all nodes and push processes together have sent to each push provider, by its name. */
export function pushOf(board: Board): PushRow[] {
  const sums = new Map<string, PushRow>();
  for (const row of [...board.nodes, ...board.push_processes].flatMap(({ push }) => push)) {
    const sum = sums.get(row.provider);
    if (sum === undefined) sums.set(row.provider, { ...row });
    else for (const key of [...PUSH_COUNTS, 'halted'] as const) sum[key] += row[key];
  }
  return [...sums.values()].sort((one, other) => one.provider.localeCompare(other.provider));
}
