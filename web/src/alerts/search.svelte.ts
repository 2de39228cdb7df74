import { CallError, type Calls } from '../contract/calls';
import type { AlertHistory, AlertQuestion } from '../contract/types';
import { EMPTY, fieldOf, trimmed, wrongFields, type QuestionField, type Wrong } from './question';

/** A question about an alert and its answer. Both survive a change of the view. */
export class AlertSearch {
  form = $state<AlertQuestion>({ ...EMPTY });
  /** The question that `history` answers: the form may have changed since. */
  asked = $state.raw<AlertQuestion>(EMPTY);
  history = $state.raw<AlertHistory | null>(null);
  wrong = $state.raw<Partial<Record<QuestionField, Wrong>>>({});
  isBusy = $state(false);

  constructor(private readonly calls: Calls) {}

  /** Whether there is an answer. If not, `wrong` has the fields to correct. Errors about no field are thrown. */
  async ask(): Promise<boolean> {
    const question = trimmed(this.form);
    this.wrong = wrongFields(question);
    if (Object.keys(this.wrong).length > 0) return false;
    this.isBusy = true;
    this.history = null;
    try {
      this.history = await this.calls.alerts(question);
      this.asked = question;
      return true;
    } catch (error) {
      const field = error instanceof CallError ? fieldOf(error.field) : undefined;
      if (field === undefined) throw error;
      this.wrong = { [field]: 'missing' };
      return false;
    } finally {
      this.isBusy = false;
    }
  }

  /** A field that is being corrected is no longer called wrong. */
  changed(field: QuestionField): void {
    const { [field]: _, ...others } = this.wrong;
    this.wrong = others;
  }

  forget(): void {
    this.form = { ...EMPTY };
    this.asked = EMPTY;
    this.history = null;
    this.wrong = {};
  }
}
