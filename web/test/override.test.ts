import { expect, it } from 'vitest';
import * as rules from '../src/channel/override';

const form = (fields: Partial<rules.Form>): rules.Form => ({
  ...rules.emptyForm(),
  why: 'the encore has begun',
  ...fields,
});

it('wants something to set, good values, and a reason', () => {
  expect(rules.isComplete(form({}))).toBe(false);
  expect(rules.isComplete(form({ batch_ms: '200' }))).toBe(true);
  expect(rules.isComplete(form({ batch_ms: '1001' }))).toBe(false);
  expect(rules.isComplete(form({ level: 'hot', slow_mode_seconds: 'x' }))).toBe(false);
  expect(rules.isComplete(form({ level: 'hot', why: ' too short ' }))).toBe(false);
});

it('sends only what is set', () => {
  expect(rules.wishOf(form({ joins_per_second: ' 0 ', minutes: 10 }))).toEqual({
    joins_per_second: 0,
    minutes: 10,
    why: 'the encore has begun',
  });
});

it('wants the name for what everyone feels', () => {
  expect(rules.wantsName(form({ level: 'blazing' }))).toBe(true);
  expect(rules.wantsName(form({ joins_per_second: '0' }))).toBe(true);
  expect(rules.wantsName(form({ level: 'hot', joins_per_second: '10' }))).toBe(false);
  const channel = { id: '17', name: 'encore' };
  expect(
    ['encore', '17', ' 17 ', 'Encore', ''].map((typed) => rules.isNamed(form({ typed }), channel)),
  ).toEqual([true, true, true, false, false]);
});

it('lets a forecast stand for exactly its values, for a minute', () => {
  const asked = form({ level: 'hot' });
  const plan: rules.Plan = {
    key: rules.planKey(asked),
    at: 1_000,
    forecast: { seconds: 0, delayed: 0, delay_ms: 0, frames: [0, 0], joins_refused: 0 },
  };
  expect(rules.planLeftMs(plan, asked, 1_000)).toBe(60_000);
  expect(rules.planLeftMs(plan, asked, 61_000)).toBe(0);
  expect(rules.planLeftMs(plan, form({ level: 'hot', minutes: 10 }), 1_000)).toBe(0);
  expect(rules.planLeftMs(plan, form({ level: 'hot', why: 'a better reason' }), 1_000)).toBe(60_000);
});

it('moves the home, alone or with what is set', () => {
  const alone = { ...rules.movingForm('n1'), why: 'its disk is slow' };
  expect(rules.isComplete(alone)).toBe(true);
  expect(rules.wishOf(alone)).toEqual({ away_from: 'n1', minutes: 60, why: 'its disk is slow' });
  const kept = rules.movingForm('n2', { level: 'hot', joins_per_second: 0, away_from: 'n1' });
  expect(rules.settingsOf(kept)).toEqual({ level: 'hot', joins_per_second: 0, away_from: 'n2' });
  expect([alone, kept, form({})].map(rules.isMoveOnly)).toEqual([true, false, false]);
  // What is moved away stays away, and what holds for hours is not cut short.
  expect(rules.settingsOf(rules.emptyForm({ level: 'hot', away_from: 'n1' }))).toEqual({ away_from: 'n1' });
  const minutes = [-1, 3_600_000, 3_600_001, 90_000_000].map(
    (left) => rules.movingForm('n2', {}, left).minutes,
  );
  expect(minutes).toEqual([60, 60, 480, 1_440]);
});
