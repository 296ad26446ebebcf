/* template_impl.h - shared by template.c and template_detect.c alone. */
#ifndef RLHF_TEXT_TEMPLATE_IMPL_H
#define RLHF_TEXT_TEMPLATE_IMPL_H

#include "common/text/template.h"

/* Sets t->kind, and t->system where the text has one, from the chat template of t->tok; ERR_CONFIG. */
int template_detect(ChatTemplate *t);

#endif
