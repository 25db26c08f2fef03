/* Other plugins in the same broker: their answers may come before ours, and then nobody asks us. */
#ifndef AUTHD_NEIGHBOURS_H
#define AUTHD_NEIGHBOURS_H

/* Write a warning to the log for each loaded object that is a broker plugin and not this one. */
void neighbours_report(void);

#endif
