// Signs, drawn in the colour of the text around them. What they mean stands beside them in words.

import { html } from '../vendor/preact.js'

const sign = (paths, box = '0 0 24 24') => html`<svg viewBox=${box} aria-hidden="true" focusable="false">${paths.map((d) => html`<path d=${d} />`)}</svg>`

export const back = () => sign(['M15 5l-7 7 7 7'])
export const send = () => sign(['M4 12h15', 'M13 6l6 6-6 6'])
export const picture = () => sign(['M5 4h14a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2z', 'M3.500 17l4.500-5 4 4 3-3 5.500 5', 'M15.500 8.500h.01'])
export const smile = () => sign(['M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z', 'M8.500 14c.8 1.500 2 2.200 3.500 2.200s2.700-.7 3.500-2.200', 'M9 9.500h.01', 'M15 9.500h.01'])
export const down = () => sign(['M12 5v14', 'M6 13l6 6 6-6'])
export const close = () => sign(['M6 6l12 12', 'M18 6L6 18'])
export const save = () => sign(['M12 4v11', 'M7 11l5 5 5-5', 'M5 20h14'])
export const leave = () => sign(['M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4', 'M10 8l-4 4 4 4', 'M6 12h9'])
export const talk = () => sign(['M6 4h12a3 3 0 0 1 3 3v7a3 3 0 0 1-3 3h-6l-5 4v-4H6a3 3 0 0 1-3-3V7a3 3 0 0 1 3-3z', 'M8 9h8', 'M8 12.500h5'])

const ticks = {
  queued: ['M10 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11z', 'M10 5v3.200l2 1.300'],
  sent: ['M5 8.500l3.200 3.200L15 4.800'],
  delivered: ['M1.500 8.500l3.200 3.200 6.800-6.900', 'M8.500 11l.7.7L16.500 4.800'],
  failed: ['M10 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11z', 'M10 5v3.500', 'M10 11h.01']
}
export const tick = (status) => sign(ticks[status] ?? [], '0 0 20 16')
export const bell = () => sign(['M6 16v-5a6 6 0 0 1 12 0v5l1.500 2h-15z', 'M10 20.500h4'])
