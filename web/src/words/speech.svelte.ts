import type { Words } from './en';
import { Format } from './format';

export const LANGUAGES = { en: 'English', ko: '한국어' } as const;
export type Language = keyof typeof LANGUAGES;

const KEY = 'madang.operator.language';

/** The words and formats of the chosen language. Each language is loaded when it is chosen; `start` before all else. */
export class Speech {
  language = $state<Language>('en');
  format = $state.raw(new Format('en'));
  #words = $state.raw<Words | null>(null);

  get words(): Words {
    if (this.#words === null) throw new Error('no language is loaded');
    return this.#words;
  }

  async start(): Promise<void> {
    const kept = localStorage.getItem(KEY);
    await this.#load(kept === 'ko' || kept === 'en' ? kept : preferred(navigator.languages));
  }

  async choose(language: Language): Promise<void> {
    localStorage.setItem(KEY, language);
    await this.#load(language);
  }

  async #load(language: Language): Promise<void> {
    const words = language === 'ko' ? (await import('./ko')).ko : (await import('./en')).en;
    this.language = language;
    this.#words = words;
    this.format = new Format(words.locale);
    document.documentElement.lang = language;
  }
}

/** The first of the browser's languages that the page speaks. */
export function preferred(languages: readonly string[]): Language {
  for (const language of languages) {
    if (language.startsWith('ko')) return 'ko';
    if (language.startsWith('en')) return 'en';
  }
  return 'en';
}
