// A picture as large as the window.

import { html, useEffect, useRef } from '../vendor/preact.js'
import * as icons from './icons.js'

export function Viewer ({ picture: { address, alt, width, height }, close }) {
  const dialog = useRef()
  useEffect(() => dialog.current.showModal(), [])
  return html`
    <dialog class="viewer" ref=${dialog} aria-label=${alt} onClose=${close} onClick=${({ target, currentTarget }) => { if (target === currentTarget) currentTarget.close() }}>
      <div class="tools">
        <a class="icon" href=${address} download="picture" aria-label="Save the picture" title="Save the picture">${icons.save()}</a>
        <button type="button" class="icon" aria-label="Close" title="Close" onClick=${() => dialog.current.close()}>${icons.close()}</button>
      </div>
      <img src=${address} alt=${alt} width=${width} height=${height} />
    </dialog>`
}
