import { expect, it } from 'vitest';
import { parseBoard } from '../src/contract/parse';
import { incidentText } from '../src/words/incident';
import { format, row, words } from './sample';

const AT = Date.UTC(2026, 10, 30, 3, 0, 0);

it('is the whole state as plain text', () => {
  const board = parseBoard({
    at: AT,
    node: 'n1',
    config_version: 8,
    nodes: [
      {
        name: 'n1',
        version: '1.0',
        at: AT,
        is_ready: true,
        config_version: 8,
        connections: 12_000,
        sends: 640,
        deliveries: 50_000,
        cost: 4_000,
        capacity: 25_000,
        bars: [500, 2_000, 6_250],
        lag_ms: 1.5,
        bytes_under_way: 1_000_000,
        bystanders_ms: { p50: 2, p99: 9 },
        shed_level: 1,
        push: [
          {
            provider: 'fcm',
            taken: 1_200,
            not_taken: 3,
            unknown: 0,
            gone: 2,
            dead: 0,
            credential: 0,
            halted: 1,
          },
        ],
      },
    ],
    channels: [
      row({
        since: AT - 200_000,
        home: 'n1',
        override: {
          level: 'blazing',
          by: 'ada',
          why: 'encore began',
          since: AT - 60_000,
          ends_at: AT + 540_000,
        },
      }),
    ],
    guarantees: [
      { id: 'G1', breaches: 0 },
      { id: 'G4', breaches: 2, last: AT - 60_000 },
    ],
  });
  expect(incidentText(board, 1_000, AT, words, format)).toMatchInlineSnapshot(`
    "State of Madang, as of 2026-11-30T03:00:00.000Z by n1, 1 sec old
    Guarantees: G4: 2×, last 1 min ago
    Nodes ready: 1/1
    Connections: 12,000
    Messages/s: 640, 50,000 delivered/s
    Bystanders p99: 9.0 ms (worst on n1)
    Shed level: 1 (presence and typing)
    Last act: No. 8, applied on 1/1

    Hot channels: 1
    - hot for 3 min 20 sec; concert (1); 300 msg/s × 5,010 readers; Home n1; Cost/s 3,000; Readers 5,010; Freshness p50 / p99 250 ms / 520 ms; batch 500 ms; Spared nothing; Override: level blazing, by ada, 9 min left, “encore began”

    Nodes: 1
    - n1: ready; 1.0; Last act No. 8; Connections 12,000; Msg/s 640; Delivered/s 50,000; Cost of capacity 4,000 of 25,000; Bars: warm, hot, blazing 500 / 2,000 / 6,250; Timer lag 1.5 ms; Bytes under way 1 MB; Bystanders p50 / p99 2.0 ms / 9.0 ms; Shed level 1

    Guarantees
    - G1: held
    - G4: 2 possible breaches, 2026-11-30T02:59:00.000Z

    Push
    - fcm: 1 service is left alone; Taken 1,200; Called again 3; No answer 0; Ended 2; Dead letters 0; Keys refused 0
    "
  `);
});

it('says that there is nothing', () => {
  expect(incidentText(null, 0, AT, words, format)).toBe('State of Madang: no data\n');
});
