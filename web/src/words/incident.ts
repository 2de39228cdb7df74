import type { Board } from '../contract/types';
import { fleetOf, PUSH_COUNTS, pushOf, worstGuarantee } from '../live/fleet';
import { causeText, pacingTexts, settingsText, sparedTexts } from './cause';
import type { Words } from './en';
import type { Format } from './format';

/** The whole state as plain text, for a ticket or a chat. Times are in UTC: readers are in several zones. */
export function incidentText(
  board: Board | null,
  ageMs: number,
  nodeTime: number,
  words: Words,
  format: Format,
): string {
  const title = words.incident.title;
  if (board === null) return `${title}: ${words.incident.noData}\n`;
  const asOf = words.incident.asOf(utc(board.at), board.node, format.duration(ageMs));
  const sections = [
    [`${title}, ${asOf}`, ...summary(board, nodeTime, words, format)],
    [`${words.table.title}: ${board.channels.length}`, ...channels(board, nodeTime, words, format)],
    [`${words.nodes.title}: ${board.nodes.length}`, ...nodes(board, words, format)],
    [words.guarantees.title, ...guarantees(board, words, format)],
    [words.push.title, ...push(board, words, format)],
  ];
  return sections.map((lines) => `${lines.join('\n')}\n`).join('\n');
}

function summary(board: Board, nodeTime: number, words: Words, format: Format): string[] {
  const fleet = fleetOf(board);
  const worst = worstGuarantee(board.guarantees);
  const bar = words.bar;
  const breach = worst
    ? `${bar.breached(worst.id, format.count(worst.breaches))}${worst.last === undefined ? '' : `, ${bar.last(format.duration(nodeTime - worst.last))}`}`
    : bar.held(board.guarantees.length);
  return [
    `${bar.guarantee}: ${breach}`,
    `${bar.nodes}: ${fleet.ready}/${fleet.total}${fleet.notReady.length > 0 ? ` (${bar.notReady(fleet.notReady.join(', '))})` : ''}`,
    `${bar.connections}: ${format.count(fleet.connections)}`,
    `${bar.sends}: ${format.count(fleet.sends)}, ${bar.deliveries(format.count(fleet.deliveries))}`,
    `${bar.bystanders}: ${format.ms(fleet.bystandersP99)} (${bar.worstOn(fleet.bystandersNode)})`,
    `${bar.shed}: ${fleet.shed} (${words.shed[fleet.shed] ?? '?'})`,
    `${bar.config}: ${bar.version(fleet.configVersion)}, ${bar.applied(fleet.applied, fleet.total)}`,
  ];
}

function channels(board: Board, nodeTime: number, words: Words, format: Format): string[] {
  if (board.channels.length === 0) return [words.table.empty];
  return board.channels.map((row) => {
    const name = row.name === undefined ? row.channel_id : `${row.name} (${row.channel_id})`;
    const table = words.table;
    const spared = sparedTexts(row.spared, words, format).join(', ');
    const parts = [
      `${words.levels[row.level]} ${table.sinceFor(format.duration(nodeTime - row.since))}`,
      name,
      causeText(row, words, format),
      ...(row.home === undefined ? [] : [`${table.home} ${row.home}`]),
      `${table.cost} ${format.count(row.cost)}`,
      `${table.audience} ${format.count(row.subscribers)}`,
      `${table.freshness} ${format.ms(row.freshness_ms.p50)} / ${format.ms(row.freshness_ms.p99)}`,
      pacingTexts(row, words, format).join(', '),
      `${table.spared} ${spared || words.spared.nothing}`,
    ];
    const set = row.override;
    if (set !== undefined) {
      const left = table.left(format.duration(set.ends_at - nodeTime));
      parts.push(
        `${table.override}: ${settingsText(set, words, format)}, ${table.by(set.by)}, ${left}, “${set.why}”`,
      );
    }
    return `- ${parts.join('; ')}`;
  });
}

function nodes(board: Board, words: Words, format: Format): string[] {
  return board.nodes.map((node) => {
    const said = words.nodes;
    const parts = [
      node.is_ready ? said.ready : said.notReady,
      node.version,
      `${words.bar.config} ${words.bar.version(node.config_version)}`,
      `${said.connections} ${format.count(node.connections)}`,
      `${said.sends} ${format.count(node.sends)}`,
      `${said.deliveries} ${format.count(node.deliveries)}`,
      `${said.load} ${said.loadOf(format.count(node.cost), format.count(node.capacity))}`,
      `${said.bars} ${node.bars.map((bar) => format.count(bar)).join(' / ')}`,
      `${said.lag} ${format.ms(node.lag_ms)}`,
      `${said.bytes} ${format.bytes(node.bytes_under_way)}`,
      `${said.bystanders} ${format.ms(node.bystanders_ms.p50)} / ${format.ms(node.bystanders_ms.p99)}`,
      `${said.shed} ${node.shed_level}`,
    ];
    return `- ${node.name}: ${parts.join('; ')}`;
  });
}

function guarantees(board: Board, words: Words, format: Format): string[] {
  return board.guarantees.map((row) => {
    if (row.breaches === 0) return `- ${row.id}: ${words.guarantees.held}`;
    const last = row.last === undefined ? '' : `, ${utc(row.last)}`;
    return `- ${row.id}: ${words.guarantees.breaches(row.breaches, format.count(row.breaches))}${last}`;
  });
}

function push(board: Board, words: Words, format: Format): string[] {
  const said = words.push;
  return pushOf(board).map((row) => {
    const state = row.halted > 0 ? said.halted(row.halted, format.count(row.halted)) : said.works;
    const counts = PUSH_COUNTS.map((key) => `${said[key]} ${format.count(row[key])}`);
    return `- ${row.provider}: ${[state, ...counts].join('; ')}`;
  });
}

function utc(at: number): string {
  return new Date(at).toISOString();
}
