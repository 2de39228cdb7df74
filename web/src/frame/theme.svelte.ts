export const THEMES = ['auto', 'light', 'dark'] as const;
export type ThemeName = (typeof THEMES)[number];

const KEY = 'madang.operator.theme';

export class Theme {
  name = $state<ThemeName>('auto');

  start(): void {
    this.#apply(THEMES.find((name) => name === localStorage.getItem(KEY)) ?? 'auto');
  }

  choose(name: ThemeName): void {
    localStorage.setItem(KEY, name);
    this.#apply(name);
  }

  #apply(name: ThemeName): void {
    this.name = name;
    document.documentElement.dataset['theme'] = name;
  }
}
