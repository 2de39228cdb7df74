import type { Field } from '../config/fields';
import type { Words } from './en';
import type { Format } from './format';

/** The value of a setting in words: "400", "no limit", "as in the file (40)". */
export function valueText(
  field: Field,
  value: number | undefined,
  fileValue: number | undefined,
  words: Words,
  format: Format,
): string {
  const said = words.config;
  if (!field.isOptional) return value === undefined ? '–' : format.decimal(value);
  const number = (of: number) => (of === 0 ? said.noLimit : format.decimal(of));
  if (value !== undefined) return number(value);
  return fileValue === undefined ? said.asInFile : said.asInFileNow(number(fileValue));
}
