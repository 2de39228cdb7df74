// The bodies of the operators' calls, as `crates/proto/src/rest/operator.rs` and `heat.rs` define them.
// Ids are strings, times are milliseconds since 1970.

export const LEVELS = ['normal', 'warm', 'hot', 'blazing'] as const;
export type Level = (typeof LEVELS)[number];

export type Scope = 'view' | 'act';
export type Cause = 'entries' | 'delivery' | 'joins' | 'history';
export type ChannelKind = 'direct' | 'group' | 'open';

export interface OperatorToken {
  token: string;
  scope: Scope;
  ends_at: number;
}

export interface Board {
  at: number;
  node: string;
  /** The number of the last act of operators that the node has applied. */
  config_version: number;
  nodes: BoardNode[];
  channels: HotRow[];
  guarantees: GuaranteeRow[];
  /** Processes that send alerts and do nothing else. */
  push_processes: PushProcess[];
}

export interface PushProcess {
  name: string;
  version: string;
  at: number;
  push: PushRow[];
}

export interface Quantiles {
  p50: number;
  p99: number;
}

export interface BoardNode {
  name: string;
  version: string;
  at: number;
  is_ready: boolean;
  config_version: number;
  connections: number;
  sends: number;
  deliveries: number;
  cost: number;
  capacity: number;
  bars: [number, number, number];
  lag_ms: number;
  bytes_under_way: number;
  bystanders_ms: Quantiles;
  shed_level: number;
  push: PushRow[];
}

export interface PushRow {
  provider: string;
  taken: number;
  not_taken: number;
  unknown: number;
  gone: number;
  dead: number;
  credential: number;
  halted: number;
}

export interface Pacing {
  level: Level;
  batch_ms: number;
  slow_mode_seconds: number;
}

export interface WorkRow {
  entries: number;
  deliveries: number;
  bytes: number;
  joins: number;
  reads: number;
}

export interface Spared {
  events: number;
  frames: number;
  left_out: number;
  joins: number;
  reads: number;
  sends: number;
}

export interface OverrideSettings {
  level?: Level;
  batch_ms?: number;
  slow_mode_seconds?: number;
  joins_per_second?: number;
  /** A node that is not the home of the channel meanwhile, unless it is the only one. */
  away_from?: string;
}

export interface OverrideCard extends OverrideSettings {
  by: string;
  why: string;
  since: number;
  ends_at: number;
}

export interface HotRow {
  channel_id: string;
  kind?: ChannelKind;
  /** Only open channels have a name here. */
  name?: string;
  level: Level;
  since: number;
  /** Absent if a newer server names a cause that this page does not know. */
  cause?: Cause;
  /** The node that orders the channel. Absent if the server is one process. */
  home?: string;
  cost: number;
  work: WorkRow;
  subscribers: number;
  pacing: Pacing;
  freshness_ms: Quantiles;
  spared: Spared;
  /** Costs of the last five minutes, one for each ten seconds, the oldest first. */
  spark: number[];
  override?: OverrideCard;
}

export interface GuaranteeRow {
  id: string;
  breaches: number;
  last?: number;
}

export interface HotDetail {
  row: HotRow;
  hour: HeatPoint[];
  changes: HeatChange[];
  senders: SenderRow[];
  joins: JoinRow;
  graphs_url?: string;
}

export interface HeatPoint {
  at: number;
  cost: number;
  bar: number;
  level: Level;
}

export interface HeatChange {
  at: number;
  from: Level;
  to: Level;
  cost: number;
  cause?: Cause;
  by_override: boolean;
}

export interface SenderRow {
  user_id: string;
  share: number;
}

/** Attempts to join since the channel is hot. A user who comes again counts again. */
export interface JoinRow {
  admitted: number;
  /** Refused for now. */
  refused: number;
  /** What refused users were asked to wait within the last ten seconds. */
  wait_ms: Quantiles;
}

export interface OverrideWish extends OverrideSettings {
  minutes: number;
  why: string;
  dry_run?: boolean;
}

export interface Forecast {
  seconds: number;
  delayed: number;
  delay_ms: number;
  frames: [number, number];
  joins_refused: number;
}

export interface OverrideAnswer {
  forecast: Forecast;
  set?: OverrideCard;
  /** The number of the act that set it; of a dry run, that of the last act. */
  config_version: number;
}

/** Kept as the server sent it: what this page does not know must survive a change. */
export type ConfigTree = { [name: string]: ConfigTree | number | ConfigTree[] | number[] };

/** Rates of users and addresses; 0 means no limit. */
export const LIMITS = [
  'user_sends',
  'user_write_kib',
  'user_requests',
  'address_requests',
  'address_logins',
] as const;
export type Limit = (typeof LIMITS)[number];
export type Limits = Partial<Record<Limit, number>>;

export interface OperatorConfig {
  /** The number of the act that changed it last. Other acts leave it as it is. */
  version: number;
  at: number;
  /** A rate that `limits` does not have is the one in the configuration file of each node. */
  config: ConfigTree;
  /** The rates in the configuration file of the answering node. Absent if the server is older than them. */
  file_limits?: Limits;
}

export interface Page<Item> {
  items: Item[];
  /** Where the next page begins; absent on the last one. */
  next?: string;
}

export interface Act {
  seq: number;
  at: number;
  by: string;
  from: string;
  /**
   * `config_changed`, `override_set`, `override_ended`, `override_measured`, `name_shown`, `alerts_sent_again`,
   * `operator_added`, `operator_removed`, or a later word.
   */
  what: string;
  channel_id?: string;
  change: string;
  why: string;
}

/** The answer to a request for a name that the board does not show. A direct channel has none. */
export interface ShownName {
  /** Absent if a newer server names a kind that this page does not know. */
  kind?: ChannelKind;
  name?: string;
}

export interface AlertQuestion {
  handle: string;
  channel_id: string;
  seq: string;
}

/** What happened about one message for one user, the oldest first. Kept for 7 days. */
export interface AlertHistory {
  items: AlertNote[];
  /** The message still waits to be decided or sent. */
  is_waiting: boolean;
}

export interface AlertNote {
  at: number;
  first_seq: number;
  last_seq: number;
  /** Absent if it is about all devices of the user. */
  device_id?: string;
  /** A word of `AlertOutcome` in `crates/proto/src/alerts.rs`, or a later one. */
  outcome: string;
  /** The reason, or the answer of the push service, verbatim. */
  detail: string;
}

/** An alert that was given up. */
export interface DeadLetter extends AlertNote {
  id: string;
  user_id: string;
  channel_id: string;
}

/** Without an id: all dead letters, the oldest 10,000 at most. */
export interface SendAgain {
  id?: string;
  why: string;
  dry_run?: boolean;
}

/** The place of a level, 0 to 3. */
export function rank(level: Level): number {
  return LEVELS.indexOf(level);
}

export function hotter(level: Level): Level {
  return LEVELS[Math.min(rank(level) + 1, LEVELS.length - 1)] ?? 'blazing';
}
